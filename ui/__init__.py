"""Code that pages share: session, with cached access; widgets; theme; and a package per page.

The server's own parts are gate, which every request passes, and preload.
"""
