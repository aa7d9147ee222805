"""The certificate: what this project computes, held against what it did not write itself."""
