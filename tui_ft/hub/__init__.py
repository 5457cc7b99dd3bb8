"""What the Hub offers and what of it is here: search, metadata, downloads, login. No torch, no weights unasked."""
