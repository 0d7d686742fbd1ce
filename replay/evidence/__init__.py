"""Evidence about a log: proofs that leave it, and what its layers show."""
