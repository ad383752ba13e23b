"""What opens an image: finding, unpacking and reading scans, and bringing one to the network's grid."""
