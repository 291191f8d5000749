"""The training recipe: dense warm-up of the tower, then the decoder on few tokens, then on all of them."""
