// Draws the figures with the theme's colours, and moves the page's few parts. No framework, nothing fetched.
(() => {
  "use strict";
  const root = document.documentElement, figures = JSON.parse(document.getElementById("figures").textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = id => document.getElementById(id);
  root.classList.add("js");

  // --- theme: the system's, unless the reader chose another one
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  try { const saved = localStorage.getItem("llmwright-theme"); if (saved) root.dataset.theme = saved; } catch (e) { /* private */ }

  // "var(--name)" in a figure becomes the theme's colour
  const paint = value => {
    if (typeof value === "string") {
      const name = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return name ? getComputedStyle(root).getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return typeof value[0] === "object" ? value.map(paint) : value;
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, paint(v)]));
    return value;
  };
  const axis = own => ({
    gridcolor: "var(--rule)", zeroline: false, linecolor: "var(--rule)", tickcolor: "var(--rule)", automargin: true,
    tickfont: { size: 12 }, ...own, title: { ...own?.title, font: { size: 12 }, standoff: 8 },
  });
  const layout = own => paint({
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "var(--ink-2)" },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 44, r: 24, t: 8, b: 36 },
    showlegend: false, hovermode: "x", hoverlabel: { bgcolor: "var(--paper)", bordercolor: "var(--rule)", font: { color: "var(--ink)" } },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger scrolls the page
    ...own, xaxis: axis({ showgrid: false, ...own.xaxis }), yaxis: axis(own.yaxis),
  });
  const draw = figure => Plotly.react(byId(figure.id), paint(figure.data), layout(figure.layout), { displayModeBar: false, responsive: true });
  const drawAll = () => Promise.all(figures.map(draw)).then(() => { root.dataset.drawn = isDark() ? "dark" : "light"; });

  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("llmwright-theme", root.dataset.theme); } catch (e) { /* private */ }
    drawAll();
  });
  system.addEventListener("change", drawAll);

  // --- the loss: unit and axis
  for (const choice of all(".choice")) choice.addEventListener("click", event => {
    const button = event.target.closest("button"), figure = figures.find(f => f.id === choice.dataset.plot);
    if (!button) return;
    for (const other of all("button", choice)) other.setAttribute("aria-pressed", other === button);
    if (choice.dataset.set === "meta") for (const trace of figure.data) trace.visible = trace.meta === button.dataset.value;
    else {
      const axis = figure.layout.xaxis, log = button.dataset.value === "log";
      figure.last ??= axis.range[1]; figure.apart ??= axis.dtick;
      for (const words of figure.layout.annotations || []) { words.step ??= words.x; words.x = log ? Math.log10(words.step) : words.step; }
      Object.assign(axis, { type: button.dataset.value, dtick: log ? undefined : figure.apart,
        range: log ? [0, Math.log10(figure.last)] : [0, figure.last] });
    }
    draw(figure);
  });

  // --- samples: one step at a time
  const slider = byId("step"), samples = all(".sample");
  const show = () => {
    samples.forEach((sample, i) => sample.classList.toggle("on", i === +slider.value));
    byId("step-name").textContent = "step " + samples[slider.value].dataset.step;
  };
  if (slider) { slider.addEventListener("input", show); show(); }

  // --- embeddings: kinds on and off, and a token marked in every map
  const maps = figures.filter(f => /^(pca|tsne)-/.test(f.id));
  for (const button of all("[data-kind]")) button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    for (const figure of maps) { figure.data[+button.dataset.kind].visible = on; draw(figure); }
  });
  const find = byId("find"), unescape = t => t.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  if (find) find.addEventListener("input", () => {
    const wanted = find.value.replace(/ /g, "␣").toLowerCase();
    for (const figure of maps) {
      figure.data = figure.data.filter(trace => trace.name !== "found");
      const found = { x: [], y: [], text: [] };
      if (wanted) for (const trace of figure.data) (trace.text || []).forEach((text, i) => {
        if (trace.mode === "text" || !unescape(text.split("<br>")[0]).toLowerCase().includes(wanted)) return;
        found.x.push(trace.x[i]); found.y.push(trace.y[i]); found.text.push(text.split("<br>")[0]);
      });
      if (found.x.length) figure.data.push({ ...found, type: "scatter", mode: found.x.length > 12 ? "markers" : "markers+text", name: "found",
        textposition: "bottom center", textfont: { size: 12, color: "var(--ink)" }, hoverinfo: "skip",
        marker: { size: 12, symbol: "circle-open", color: "var(--ink)", line: { width: 2 } } });
      draw(figure);
    }
  });

  // --- commands
  for (const button of all(".copy")) button.addEventListener("click", () => {
    const text = button.previousElementSibling.textContent, done = () => { button.textContent = "copied"; setTimeout(() => { button.textContent = "copy"; }, 1500); };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => {});
  });

  drawAll();
})();
