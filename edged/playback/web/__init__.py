"""The watch page and the landing page: files, and the bytes made of them."""
