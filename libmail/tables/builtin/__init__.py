"""Tables that need neither file nor server: inline, static, environ, internal, fail, unix."""
