"""Milvus as a second home of a gallery: the same questions, the same answers, on a server that can outgrow one machine."""
