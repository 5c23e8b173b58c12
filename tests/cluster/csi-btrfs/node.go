package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type nodeService struct {
	csi.UnimplementedNodeServer
	pool *pool
	name string
}

func (n *nodeService) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.name}, nil
}

func (*nodeService) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	resp := &csi.NodeGetCapabilitiesResponse{}
	for _, can := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		resp.Capabilities = append(resp.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: can}},
		})
	}
	return resp, nil
}

func (n *nodeService) NodePublishVolume(_ context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if req.VolumeId == "" || req.TargetPath == "" || req.VolumeCapability == nil {
		return nil, status.Error(codes.InvalidArgument, "a volume, a target path and a capability are needed")
	}
	if err := checkCapabilities([]*csi.VolumeCapability{req.VolumeCapability}); err != nil {
		return nil, err
	}
	if found, err := n.pool.find(volumes, req.VolumeId); err != nil || found == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %s", req.VolumeId)
	}
	table, err := mounts()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	onlyOne := req.VolumeCapability.AccessMode.GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	for _, one := range table {
		if one.at == filepath.Clean(req.TargetPath) {
			return &csi.NodePublishVolumeResponse{}, nil
		}
		if onlyOne && strings.HasSuffix(one.root, "/"+volumes+"/"+req.VolumeId) {
			return nil, status.Errorf(codes.FailedPrecondition, "volume %s allows one mount and is mounted at %s", req.VolumeId, one.at)
		}
	}
	if err := os.MkdirAll(req.TargetPath, 0o750); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := unix.Mount(n.pool.path(volumes, req.VolumeId), req.TargetPath, "", unix.MS_BIND, ""); err != nil {
		return nil, status.Errorf(codes.Internal, "bind mount: %v", err)
	}
	if req.Readonly {
		if err := unix.Mount("", req.TargetPath, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			_ = unix.Unmount(req.TargetPath, unix.MNT_DETACH)
			return nil, status.Errorf(codes.Internal, "read-only mount: %v", err)
		}
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (n *nodeService) NodeUnpublishVolume(_ context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if req.VolumeId == "" || req.TargetPath == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and a target path are needed")
	}
	mounted, err := isMounted(req.TargetPath)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if mounted {
		if err := unix.Unmount(req.TargetPath, 0); err != nil {
			return nil, status.Errorf(codes.Internal, "unmount: %v", err)
		}
	}
	if err := os.Remove(req.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (n *nodeService) NodeGetVolumeStats(_ context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if req.VolumeId == "" || req.VolumePath == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and its path are needed")
	}
	found, err := n.pool.find(volumes, req.VolumeId)
	if err != nil || found == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %s", req.VolumeId)
	}
	mounted, err := isMounted(req.VolumePath)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if !mounted {
		return nil, status.Errorf(codes.NotFound, "nothing is mounted at %s", req.VolumePath)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(req.VolumePath, &fs); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	block := fs.Bsize
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{
		Unit: csi.VolumeUsage_BYTES, Total: int64(fs.Blocks) * block,
		Available: int64(fs.Bavail) * block, Used: int64(fs.Blocks-fs.Bfree) * block,
	}}}, nil
}

// A mount: where it is, and which folder of its file system is mounted there.
type mount struct{ at, root string }

func mounts() ([]mount, error) {
	table, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer table.Close()
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var all []mount
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			all = append(all, mount{at: unescape.Replace(fields[4]), root: unescape.Replace(fields[3])})
		}
	}
	return all, lines.Err()
}

// isMounted reads the mount table: device numbers do not tell, as a subvolume has its own anyway.
func isMounted(path string) (bool, error) {
	table, err := mounts()
	for _, one := range table {
		if one.at == filepath.Clean(path) {
			return true, nil
		}
	}
	return false, err
}

func isNameTooLong(err error) bool { return errors.Is(err, unix.ENAMETOOLONG) }
