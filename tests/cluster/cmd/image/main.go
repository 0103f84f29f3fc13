// Command image assembles the project's image from built programs, as the
// Dockerfile describes it, without a container engine. Its tag is a digest of
// the programs, so that another build is another image.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/estiba-dev/estiba/tests/cluster/image"
)

// layout maps paths in the image to the programs that lie there; the Dockerfile has the same.
var layout = [][2]string{
	{"/mover", "mover"},
	{"/restore-wait", "restore-wait"},
	{"/plugins/estiba", "velero-plugin"},
	{"/install-plugin", "install-plugin"},
	{"/estiba", "estiba"},
}

func main() {
	arch := flag.String("arch", "", "GOARCH of the programs")
	name := flag.String("name", "estiba.test/estiba", "name of the image, without a tag")
	from := flag.String("from", "", "folder with the programs")
	to := flag.String("to", "", "tarball to write")
	flag.Parse()

	if err := assemble(*arch, *name, *from, *to); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func assemble(arch, name, from, to string) error {
	img := image.Image{User: "65532:65532", Entrypoint: []string{"/install-plugin"}, Architecture: arch}
	digest := sha256.New()

	for _, l := range layout {
		source := filepath.Join(from, l[1])

		f, err := os.Open(source)
		if err != nil {
			return fmt.Errorf("%w (`make build` makes it)", err)
		}

		_, err = io.Copy(digest, f)
		if err := f.Close(); err != nil {
			return err
		}

		if err != nil {
			return err
		}

		img.Files = append(img.Files, image.File{Path: l[0], Source: source, Mode: 0o755})
	}

	img.Name = name + ":" + hex.EncodeToString(digest.Sum(nil))[:16]

	return image.WriteFile(to, img)
}
