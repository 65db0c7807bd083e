"""What every language model needs: its shape, its file, its tokens, its perplexity. No torch but in `perplexity`."""
