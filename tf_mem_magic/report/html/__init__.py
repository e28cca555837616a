"""The report as HTML: pieces that every page is made of, drawings, and the page itself."""
