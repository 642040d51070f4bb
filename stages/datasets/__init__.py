"""One module a kind of data set: each lists its images as a `Listing`, which `stages.manifest` makes a manifest of."""
