"""Events of the organization as changes of assets."""
