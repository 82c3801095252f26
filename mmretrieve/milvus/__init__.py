"""Galleries on Milvus servers, with the interface of a gallery in a folder."""
