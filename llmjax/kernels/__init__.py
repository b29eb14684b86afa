"""Products, attention and autodiff tricks, in the form that each machine does fastest."""
