"""Text: quotes, line ends, patterns, and what is fit to be shown. Knows nothing of mail."""
