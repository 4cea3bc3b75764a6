"""Reports of comparisons: findings in numbers, in sentences, as tables and as one page. No JAX."""
