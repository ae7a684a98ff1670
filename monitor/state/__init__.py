"""What the core remembers: books, marks and flows per market, margin accounts in numpy tables."""
