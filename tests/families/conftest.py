def pytest_collection_modifyitems(items):
    """The page of families is held against what the tests of families found: after them."""
    items.sort(key=lambda item: item.path.name == "test_families_page.py")
