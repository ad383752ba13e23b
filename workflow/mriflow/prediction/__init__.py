"""What uses trained networks: their predictions of scans that they have not seen."""
