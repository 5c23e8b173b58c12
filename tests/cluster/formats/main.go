// formats reads and writes standard input as the reference does, with the libraries that it is built from, and age objects
// with the implementation of age's author. The mover's tests compare both directions.
package main

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/pierrec/lz4"
)

const usage = `formats decode FAMILY          zstd, gzip, pgzip, deflate, lz4, s2, or none
formats encode FAMILY
formats keygen                 prints an identity and its recipient

FORMATS_CIPHER names an AES mode of the contract, or age; FORMATS_KEY holds the pass phrase, identity or recipient.`

func main() {
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	err := run(os.Args[1:], bufio.NewReaderSize(os.Stdin, 1<<20), out)
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "formats:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	key, mode := os.Getenv("FORMATS_KEY"), os.Getenv("FORMATS_CIPHER")
	switch {
	case len(args) == 2 && args[0] == "decode":
		plain, err := decrypt(mode, key, in)
		if err != nil {
			return err
		}
		return decode(args[1], plain, out)
	case len(args) == 2 && args[0] == "encode":
		sealed, err := encrypt(mode, key, out)
		if err != nil {
			return err
		}
		if err := encode(args[1], in, sealed); err != nil {
			return err
		}
		return sealed.Close()
	case len(args) == 1 && args[0] == "keygen":
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s\n%s\n", identity, identity.Recipient())
		return err
	}
	return errors.New("usage:\n" + usage)
}

func decode(family string, in io.Reader, out io.Writer) error {
	switch family {
	case "none":
	case "zstd":
		decoder, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(512<<20))
		if err != nil {
			return err
		}
		defer decoder.Close()
		in = decoder
	case "gzip":
		decoder, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		in = decoder
	case "pgzip":
		decoder, err := pgzip.NewReader(in)
		if err != nil {
			return err
		}
		in = decoder
	case "deflate":
		in = flate.NewReader(in)
	case "lz4":
		in = lz4.NewReader(in)
	case "s2":
		in = s2.NewReader(in)
	default:
		return fmt.Errorf("unknown family %q", family)
	}
	_, err := io.Copy(out, in)
	return err
}

func encode(family string, in io.Reader, out io.Writer) error {
	var encoder io.WriteCloser
	var err error
	switch family {
	case "none":
		encoder = plain{out}
	case "zstd":
		encoder, err = zstd.NewWriter(out)
	case "gzip":
		encoder = gzip.NewWriter(out)
	case "pgzip":
		encoder = pgzip.NewWriter(out)
	case "deflate":
		encoder, err = flate.NewWriter(out, flate.DefaultCompression)
	case "lz4":
		encoder = lz4.NewWriter(out)
	case "s2":
		encoder = s2.NewWriter(out)
	default:
		err = fmt.Errorf("unknown family %q", family)
	}
	if err != nil {
		return err
	}
	if _, err := io.Copy(encoder, in); err != nil {
		return err
	}
	return encoder.Close()
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// block gives the cipher of a mode of the contract.
func block(mode, phrase string) (cipher.Block, error) {
	size := map[string]int{"AES-128-CFB": 16, "AES-192-CFB": 24, "AES-256-CFB": 32}[mode]
	if size == 0 {
		return nil, fmt.Errorf("unknown cipher %q", mode)
	}
	key, err := hkdf.Key(sha256.New, []byte(phrase), []byte("encryption"), "", 32)
	if err != nil {
		return nil, err
	}
	return aes.NewCipher(key[:size])
}

func decrypt(mode, key string, in io.Reader) (io.Reader, error) {
	switch mode {
	case "":
		return in, nil
	case "age":
		if strings.HasPrefix(key, "AGE-SECRET-KEY-1") {
			identity, err := age.ParseX25519Identity(key)
			if err != nil {
				return nil, err
			}
			return age.Decrypt(in, identity)
		}
		identity, err := age.NewScryptIdentity(key)
		if err != nil {
			return nil, err
		}
		return age.Decrypt(in, identity)
	}
	block, err := block(mode, key)
	if err != nil {
		return nil, err
	}
	iv := make([]byte, aes.BlockSize)
	if _, err := io.ReadFull(in, iv); err != nil {
		return nil, err
	}
	//lint:ignore SA1019 the contract's mode
	return cipher.StreamReader{S: cipher.NewCFBDecrypter(block, iv), R: in}, nil
}

func encrypt(mode, key string, out io.Writer) (io.WriteCloser, error) {
	switch mode {
	case "":
		return plain{out}, nil
	case "age":
		if strings.HasPrefix(key, "age1") {
			recipient, err := age.ParseX25519Recipient(key)
			if err != nil {
				return nil, err
			}
			return age.Encrypt(out, recipient)
		}
		recipient, err := age.NewScryptRecipient(key)
		if err != nil {
			return nil, err
		}
		// As much work as the mover asks for; the default takes a second.
		recipient.SetWorkFactor(16)
		return age.Encrypt(out, recipient)
	}
	block, err := block(mode, key)
	if err != nil {
		return nil, err
	}
	iv := make([]byte, aes.BlockSize)
	if _, err := rand.Read(iv); err != nil {
		return nil, err
	}
	if _, err := out.Write(iv); err != nil {
		return nil, err
	}
	return plain{cipher.StreamWriter{S: cipher.NewCFBEncrypter(block, iv), W: out}}, nil
}
