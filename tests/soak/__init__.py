"""Long campaigns: hours of use and misuse, fuzzing, and many seeds; `make soak` runs them, and nothing else does."""
