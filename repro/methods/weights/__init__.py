"""Weight sparsity: the distribution of densities over layers, masks, and the methods that train them."""
