"""What every engine on this device does with a conversation: render it, tokenise it safely, show its answer."""
