"""What ScannerJob costs, measured on real servers, with the naive way beside each figure."""
