"""Weight sparsity: how densities are spread over layers, masks, and the methods that train them."""
