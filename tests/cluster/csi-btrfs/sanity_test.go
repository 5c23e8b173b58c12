package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
)

// The whole of csi-sanity against the real driver on a btrfs file system of its own. Needs root.
func TestSanity(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	image, pool := filepath.Join(dir, "pool.img"), filepath.Join(dir, "pool")
	must(t, "truncate", "--size=512M", image)
	must(t, "mkfs.btrfs", "--quiet", image)
	must(t, "mkdir", pool)
	must(t, "mount", "-o", "loop", image, pool)
	t.Cleanup(func() { unmountBelow(t, dir) })

	store, err := openPool(pool)
	if err != nil {
		t.Fatal(err)
	}
	server := newServer(store, "node1")
	socket := filepath.Join(dir, "csi.sock")
	if err := serve(server, socket, make(chan error, 1)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)

	config := sanity.NewTestConfig()
	config.Address = "unix:" + socket
	config.TargetPath = filepath.Join(dir, "target")
	config.StagingPath = filepath.Join(dir, "staging")
	config.TestVolumeSize = 64 << 20
	sanity.Test(t, config)
}

func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// unmountBelow also ends what a failed test left mounted.
func unmountBelow(t *testing.T, dir string) {
	t.Helper()
	table, err := mounts()
	if err != nil {
		t.Fatal(err)
	}
	for i := len(table) - 1; i >= 0; i-- {
		if strings.HasPrefix(table[i].at, dir+"/") {
			must(t, "umount", table[i].at)
		}
	}
}
