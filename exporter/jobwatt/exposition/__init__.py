"""What the world sees: metrics, JSON, the page, and the server that answers with them."""
