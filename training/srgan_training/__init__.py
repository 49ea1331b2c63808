"""Training of the generators that srgan_infer runs: SRResNet, then SRGAN."""
