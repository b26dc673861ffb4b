"""What several tests share: worlds to run stages in, made-up results, oracles."""
