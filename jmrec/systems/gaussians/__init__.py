"""The system "gaussians": estimators of mutual information where the answer is known."""
