// Command docker-archive writes a container image that holds one static binary
// and nothing else (no shell, no libc, no user database), in the format of
// "docker save", without Docker. The same input gives the same bytes.
//
//	docker-archive -image NAME:TAG -binary PATH -out FILE
//
// The binary becomes /NAME-OF-THE-FILE and the image's entry point; it runs as
// user 65532. Anything that talks to a registry or a cluster belongs elsewhere.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
)

func main() {
	log.SetFlags(0)
	image := flag.String("image", "", "name and tag of the image")
	binary := flag.String("binary", "", "static binary to put into it")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	if *image == "" || *binary == "" || *out == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*image, *binary, *out); err != nil {
		log.Fatalf("docker-archive: %v", err)
	}
}

func run(image, binary, out string) error {
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	if err := checkStatic(content); err != nil {
		return fmt.Errorf("%s: %w", binary, err)
	}
	name := filepath.Base(binary)
	layer, err := tarOf(file{name, 0o755, content})
	if err != nil {
		return err
	}
	config, err := imageConfig("/"+name, layer)
	if err != nil {
		return err
	}
	configName := digest(config) + ".json"
	manifest, err := json.Marshal([]map[string]any{{
		"Config":   configName,
		"RepoTags": []string{image},
		"Layers":   []string{"layer.tar"},
	}})
	if err != nil {
		return err
	}
	archive, err := tarOf(
		file{configName, 0o644, config},
		file{"layer.tar", 0o644, layer},
		file{"manifest.json", 0o644, manifest},
	)
	if err != nil {
		return err
	}
	return os.WriteFile(out, archive, 0o644)
}

// checkStatic finds out now what would otherwise be a pod's "no such file or
// directory", which names the binary but means its missing dynamic linker.
func checkStatic(content []byte) error {
	program, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return err
	}
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP {
			return errors.New("is dynamically linked, an image of one file needs a static binary")
		}
	}
	return nil
}

func imageConfig(entrypoint string, layer []byte) ([]byte, error) {
	return json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"Entrypoint": []string{entrypoint},
			// A number, so that runAsNonRoot can be checked without a user database.
			"User":       "65532",
			"WorkingDir": "/",
		},
		"rootfs": map[string]any{
			"type":     "layers",
			"diff_ids": []string{"sha256:" + digest(layer)},
		},
	})
}

type file struct {
	name    string
	mode    int64
	content []byte
}

// tarOf leaves times and owners out, so that an unchanged binary keeps its digest.
func tarOf(files ...file) ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	var errs []error
	for _, f := range files {
		errs = append(errs, archive.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg,
			Name:     f.name,
			Mode:     f.mode,
			Size:     int64(len(f.content)),
		}))
		_, err := archive.Write(f.content)
		errs = append(errs, err)
	}
	errs = append(errs, archive.Close())
	return buffer.Bytes(), errors.Join(errs...)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
