"""What everybody talks about: frozen values without behaviour that needs the outside world."""
