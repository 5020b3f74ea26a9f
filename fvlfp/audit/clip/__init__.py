"""What only a CLIP has: retrieval skew, leakage, flips, subspaces of its embeddings."""
