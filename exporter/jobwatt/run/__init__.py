"""What `jobwatt run` is made of: the command it starts, who measures it, the receipt."""
