"""Generated from protos/ by `make proto`; committed, and proven fresh by a test. Not edited by hand."""
