"""The system "mmrec": texts of reviews and pictures, a latent space, a ranker of pairs."""
