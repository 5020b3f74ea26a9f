"""The frozen CLIP: image features with provenance, and a text tower that takes prompts."""
