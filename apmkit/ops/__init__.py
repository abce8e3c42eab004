"""The agent's own HTTP paths and who may see them."""
