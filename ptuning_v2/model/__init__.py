"""The models: prefix encoder, heads, and the frozen encoder between them."""
