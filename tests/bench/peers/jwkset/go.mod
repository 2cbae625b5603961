module jwksd.test/bench/jwkset

go 1.25.0

require github.com/MicahParks/jwkset v0.11.4

require golang.org/x/time v0.9.0 // indirect
