"""What a relay carries and costs as its network grows: an event simulation, a population model, and both compared."""
