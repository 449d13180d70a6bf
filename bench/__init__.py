"""How fast jaxem is beside its peers: `python -m bench`.  No part of the installed package."""
