"""Who reads an item: towers, pretrained encoders and decoders, heads and critics."""
