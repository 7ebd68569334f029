"""The system "tpad": readers and a Transfer tower teach light session students."""
