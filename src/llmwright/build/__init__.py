"""The whole of it from one recipe: text → data → plan → trained model → test result → report, each stage resumable."""
