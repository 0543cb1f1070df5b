"""One script a claim: each prints ratios against limits and peers that were measured in the same run."""
