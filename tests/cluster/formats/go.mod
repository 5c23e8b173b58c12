// The libraries that the reference reads and writes its objects with, at its versions, and age by its author.
module kbbackup.test/cluster/formats

go 1.26.0

require (
	filippo.io/age v1.3.2
	github.com/klauspost/compress v1.18.1
	github.com/klauspost/pgzip v1.2.6
	github.com/pierrec/lz4 v2.6.1+incompatible
)

require (
	filippo.io/hpke v0.4.0 // indirect
	github.com/frankban/quicktest v1.14.6 // indirect
	golang.org/x/crypto v0.55.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)
