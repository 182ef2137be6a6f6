"""What models of both modalities make of each: exchanged between patients, or hidden."""
